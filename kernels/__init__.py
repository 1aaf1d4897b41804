"""The Triton backend: kernels for a cell's launch plan (docs/gpu.md), for GPUs of compute capability 7.0 and up.

One file is one idea: `columns` and `rows` read the table, `pixels` addresses blocks, `sums` adds them up, `gather`
(`resample`, `pools`) is what a job reads, `forward`, `backward` and `merge` have the kernels, which `entry` makes
launchable and `launch` puts on a stream. Importing this package alone does not import Triton.
"""
