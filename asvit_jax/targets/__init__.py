"""Programs compiled for accelerators that are not here: what they take, and whether they fit.

`names` reads what a user writes ("tpu:v5e:2x4"), `chips` knows the accelerators. The rest runs in a
process of its own (`process` starts it, `worker` is it), whose environment makes JAX compile for
the target: `topology` has its devices, `programs` what is compiled, `compiling` compiles it and
reads what the compiler says, `fitting` looks for the largest batch, `roofline` estimates times, and
`account` says it all. `times` is what the parts of a network take on a TPU, from the cycles that
its compiler says (`cycles`). `check` compiles the programs of two recipes for many targets.
"""
