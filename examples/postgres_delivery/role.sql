-- Before the first delivery: the role that delivers. It gets its rights by deliver_values --migrate.
CREATE ROLE catalog_delivery LOGIN PASSWORD 'change-me';
