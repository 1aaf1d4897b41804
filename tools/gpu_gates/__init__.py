"""Gates on what the compilers make of the GPU kernels, for chips that need not be at hand (`make gpu-gates`)."""
