"""Which hosts take mail for a domain, and at which addresses: DNS, its cache, and the guard on addresses."""
