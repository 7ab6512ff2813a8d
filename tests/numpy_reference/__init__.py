"""The CosyVoice2 networks written down once more, in plain numpy.

A second reading of the architecture to compare the exported graphs with, at any size. Depths,
widths and kernels come from the state dict; what tensor shapes cannot tell is a keyword argument.
Arithmetic and results are float64. "Channels first" is [batch, channels, time].
"""
