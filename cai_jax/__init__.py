"""Constitutional AI (Bai et al. 2022) end to end in JAX and Flax."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow only reads data here
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no word on missing PyTorch

__version__ = "0.3.0"
