"""From records to evidence: statistics, verdicts, tables, figures and reports. Imports no torch."""
