"""Adaptive Sparse ViT in JAX: vision transformers that keep only the tokens an image needs."""
