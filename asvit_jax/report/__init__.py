"""Pictures and pages for people: kept tokens, training curves, comparisons, speed."""
