"""Installs the training code; `pip install -e .` is meant, since the variants run in place."""

from setuptools import setup

setup(
    name="bsn-tf2",
    version="0.1.0",
    description="GANs with SN, SSN, BSN and BSSN discriminators in TensorFlow 2 / Keras 3",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[
        "common",
        "common.configuration",
        "common.data",
        "common.layers",
        "common.losses",
        "common.metrics",
        "common.networks",
        "common.parsers",
        "common.preparation",
        "common.results",
        "common.sweeps",
        "common.training",
        "common.training.parts",
        "no_gamma_cnn",
        "same_gamma_cnn",
        "diff_gamma_cnn",
        "no_gamma_resnet",
    ],
    install_requires=[
        # Bounded from above for what `common/keras_private.py` reads.
        "tensorflow>=2.18,<2.22",
        "tensorflow-datasets>=4.9.7",
        "keras>=3.12.4,<3.16",
        "numpy>=1.26",
        "scipy>=1.11",
        "pillow>=10",
        "absl-py>=2",
        "tqdm>=4.66",
        "tensorboard>=2.18",
        "psutil>=5.9",
        "importlib_resources>=6",  # tensorflow-datasets needs it to download, and omits it
    ],
    extras_require={
        "demo": ["scikit-learn>=1.3"],
        "report": ["matplotlib>=3.8"],
        "cluster": ["ray>=2.30"],
        "prepare": ["isal>=1.6"],
        "test": [
            "hypothesis>=6.100",
            "isal>=1.6",
            "mypy>=1.18",
            "opencv-python-headless>=4.9",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ray>=2.30",
            "ruff>=0.17",
            "scikit-learn>=1.3",
        ],
    },
)
