"""Networks, losses and the training that ties them to cases."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    kinds="recipe_of",
    training__checkpoint="Checkpoint load_checkpoint",
    predict__cases="load_model predict_case",
    case_data="CaseDataModule",
)
