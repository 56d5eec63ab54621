"""One file per method. A method never imports another one; shared kernels are in modules with an underscore."""
