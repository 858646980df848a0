"""Files of many: users and keys read from CSV, shown as a plan, and made as a whole or not at all."""
