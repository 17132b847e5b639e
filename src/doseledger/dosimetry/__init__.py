"""Clinical dosimetry of arrays: gamma, DVH, goals, intervals."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    gamma__criteria="GammaCriteria",
    gamma__grids="DosePair",
    gamma__map="gamma_map exact_gamma_map pass_rate_percent",
    dvh__curves="dvh_curves",
    dvh__statistics="dvh_statistics structure_dose",
    goals="evaluate_goals",
    intervals="bootstrap_interval",
)
