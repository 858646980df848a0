"""A new version in the place of the one that runs: `forebay upgrade`."""
