"""The administration routes of other gateways, in their shapes, so that scripts that were written for those work here."""
