"""From DICOM-RT to judged cases, dose-prediction models and reports, each traced to what made it."""
