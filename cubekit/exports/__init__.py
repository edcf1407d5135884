"""Results in the forms that others read: COG, figures, report."""
