"""The method itself: `estimators` (torch-free formulas), `functions` (step and sign), `layers` (what networks use)."""
