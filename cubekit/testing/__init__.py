"""The shipped test kit: sample archives with known answers, local servers."""
