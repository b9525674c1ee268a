"""What tests tell XLA, by how long its programs run: most are compiled to run once."""

EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
_OLD_EMITTERS = "--xla_cpu_use_fusion_emitters=false"  # of fusions: compiled in half the time
ONCE = f"--xla_backend_optimization_level=0 {_OLD_EMITTERS}"
# The microworld's steps take 3 % longer, and their programs two thirds of the time to compile.
MINUTES = f"--xla_backend_optimization_level=1 {_OLD_EMITTERS}"
# With the old emitters a real model samples at two thirds of the speed.
REAL_MODEL = "--xla_backend_optimization_level=1"
