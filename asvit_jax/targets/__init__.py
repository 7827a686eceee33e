"""Programs compiled for TPUs and GPUs that are not here: their memory, work and estimated time.

`chips` has the accelerators and reads the names that a user writes, such as "tpu:v5e:2x4".
`process` runs jobs in a process whose environment makes JAX compile for the target. There,
`programs` builds and compiles the programs of a run or of inference, and `compiling` compiles one
program and reports what the compiler says. `times` estimates the times of the parts of a network on
a TPU, and `check` compiles the programs of two recipes for many targets.
"""
