"""Stage report: tables, figures and pages of what the study measured."""
