"""Forecast maps: from yearly maps to those of the coming years, scored on years held out."""
