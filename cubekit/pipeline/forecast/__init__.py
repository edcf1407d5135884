"""Forecast maps: from yearly maps to next year's, scored on held-out years beside forecasts without a network."""
