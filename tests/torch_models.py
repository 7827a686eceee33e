"""Networks of PyTorch with random parameters."""


def randomized(model):
  """With parameters none of which is zero, or one: as if trained."""
  import torch

  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      if parameter.ndim < 2:  # biases, norms, layer scale
        parameter.copy_(float("norm" in name and "weight" in name) + 0.1 * noise)
      else:
        parameter.copy_(noise * (0.5 if "embed" in name else parameter[0].numel() ** -0.5))
  return model.eval()
