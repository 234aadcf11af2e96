"""What the registry knows of the toy framework; the entry point names it."""

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
