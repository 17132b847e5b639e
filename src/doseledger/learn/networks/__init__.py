"""Networks and the functions around them."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    unet="build_network",
    with_prior="dose_network",
    mean_dose="MeanDose",
    windows="predict_whole",
)
