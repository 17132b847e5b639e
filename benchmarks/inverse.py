"""Inverse optimisation on OpenKBP: weights of our own planner fitted to each plan, then predicted from anatomy.

    python benchmarks/inverse.py LOW [--patients 8] [--held 20]

Our nine-field plan of 18 objectives and a smooth fluence (those of the protocol's map `plan`, and more of its kind) is
brought as near to the true dose as its weights allow: Gauss-Newton on their logarithms, by the mean absolute error;
`balance` is the closed form (weights that balance the penalties' slopes at the nearest nine-field fluence, non-negative
least squares).

Stop rule, written before the first run:

1. Oracle. If weights fitted to the truth itself don't bring the plan's error of 8 training patients from about 4.6
   (the map `plan`) to below 3.0 Gy, stop.
2. Prediction. Else fit the training patients. If predicted weights gain less on the selection patients than a third of
   what weights fitted to their own truth gain, both against one set of weights for all, stop.
3. Trees. Else give trees the plan of predicted weights in place of `plan`; it stays if that is better than 3.00 / 2.48
   with a 95 % interval over patients below 0.

First run of 1: 3.43 (map `plan` 4.25 on these 8), so it stops; `balance` 3.8 to 13.9. But slopes by finite differences of
plans of 60 evaluations were noise (correlation 0.25 to 0.9 with those of plans of 300). Written before it: one more try,
the last, of the same objectives on the same patients with plans of 300 evaluations and slopes by implicit
differentiation; 3.0 stays.
"""
