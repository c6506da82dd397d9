"""What runs show, for people: tables, plots, a page of HTML."""
