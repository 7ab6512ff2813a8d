"""edgepack: CosyVoice speech synthesis packaged for phones, boxes and CPUs."""

__version__ = "0.1.0"
