"""One file per method. A method never imports another one."""
