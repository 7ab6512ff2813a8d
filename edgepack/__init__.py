"""edgepack: CosyVoice speech synthesis packaged for phones, boxes and CPUs."""

from edgepack import telemetry

__version__ = "0.1.0"

# Here, as every command, program and child process comes by before it has an engine.
telemetry.switch_off()
