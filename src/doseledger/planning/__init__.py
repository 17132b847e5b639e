"""A treatment machine, its dose, and the optimiser of its arcs."""

from doseledger.core.exports import lazy_names

__getattr__, __dir__ = lazy_names(
    __name__,
    machine__linac="load_machine",
    machine__check="check_plan",
    dose__autograd="arc_dose",
    dose__engine="compute_dose",
    optimise__arcs="optimise_plan",
    optimise__patient="OptimiserSettings Patient PlanStyle",
)
