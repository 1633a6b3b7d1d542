"""The works: one file each, with a function from sizes to contests."""
