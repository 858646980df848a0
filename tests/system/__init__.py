"""A package, unlike the other folders of tests, so that what lasts as long as all of these tests ends with them."""
