"""Our own import-linter contract: from another slice only its models and its verbs."""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class PrivateModules(Contract):
    """`parent.<slice>.<private>` may be imported by that slice itself and by the gatherers, by nobody else."""

    type_name = "private_modules"

    parent = fields.ModuleField()
    private = fields.ListField(subfield=fields.StringField())
    gatherers = fields.ListField(subfield=fields.ModuleField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        faults = []
        for imported in sorted(self._private_modules(graph)):
            home = ".".join(imported.split(".")[:2])
            for importer in sorted(graph.find_modules_that_directly_import(imported)):
                if not self._may_import(importer, home):
                    details = graph.get_import_details(importer=importer, imported=imported)
                    lines = sorted({str(detail["line_number"]) for detail in details})
                    faults.append((importer, imported, ", ".join(lines)))
        return ContractCheck(kept=not faults, metadata={"faults": faults})

    def _private_modules(self, graph: ImportGraph) -> set[str]:
        private = set(self.private)  # type: ignore[arg-type]
        below = graph.find_descendants(self.parent.name)  # type: ignore[attr-defined]
        gatherers = {module.name for module in self.gatherers}  # type: ignore[attr-defined]
        slices = {module for module in below if ".".join(module.split(".")[:2]) not in gatherers}
        return {module for module in slices if len(parts := module.split(".")) > 2 and parts[2] in private}

    def _may_import(self, importer: str, home: str) -> bool:
        homes = [home, *(module.name for module in self.gatherers)]  # type: ignore[attr-defined]
        return any(importer == allowed or importer.startswith(allowed + ".") for allowed in homes)

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported, lines in check.metadata["faults"]:
            output.print_error(
                f"{importer} (line {lines}) imports {imported}, which is private to its slice."
            )
        output.new_line()
