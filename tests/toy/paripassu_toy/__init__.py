"""A framework that has the reference compute: for tests, and to be copied."""

from paripassu.frameworks.registry import Framework

TOY = Framework(
    name="toy",
    title="Toy",
    package="paripassu_toy",
    import_roots=("paripassu_toy",),
    distributions=("toy",),
    suffixes=(".toy",),
    aliases=("plaything",),
)
