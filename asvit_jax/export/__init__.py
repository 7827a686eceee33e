"""Export of networks as files for other programs: formats, writing, verification and loading."""
