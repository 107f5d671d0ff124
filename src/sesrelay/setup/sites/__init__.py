"""Site files and the first configuration: composed, checked, written; or made of what another relay was told."""
