"""Container images from the files of this machine: no registry, no container engine."""
