"""The ground every Forebay service stands on."""
