"""The relay over HTTP: health, metrics, JSON and the status page. Reads only; it never changes mail."""
