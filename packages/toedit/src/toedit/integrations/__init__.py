"""Where the editor plugs into other libraries; each module needs its own, and is imported by name."""
