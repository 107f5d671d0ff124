"""The words of the field: frozen values, standard library only, no I/O, no clock."""
