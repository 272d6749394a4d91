"""Jobs of the people who answer for the catalog: undo, correct, explain, export, list runs, clean up."""
