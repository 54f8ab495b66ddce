"""The method itself: its switches, its formulas and its layers.

`method` (the switches), `estimators` (torch-free formulas), `functions` (step and sign), `layers` (what networks use).
"""
