"""Maps of fractions: from scenes, or from published pixels, to shares of classes and their scores."""
