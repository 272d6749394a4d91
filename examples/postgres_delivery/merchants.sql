-- After deliver_values --migrate: the marketplace's own table, and a trigger that tells what merchants say now.
-- Their word wins in the view at once, without a delivery.
CREATE TABLE listings (sku text PRIMARY KEY, colour text);

CREATE FUNCTION tell_colour() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO enriched.merchant_values VALUES (NEW.sku, 'color', array_remove(ARRAY[NEW.colour], NULL))
  ON CONFLICT (product_id, attribute) DO UPDATE SET "values" = excluded."values", changed_at = now();
  RETURN NEW;
END $$;
CREATE TRIGGER tell_colour AFTER INSERT OR UPDATE OF colour ON listings FOR EACH ROW EXECUTE FUNCTION tell_colour();

-- a merchant corrects what was delivered
INSERT INTO listings SELECT product_id, 'Silver' FROM enriched.delivered_values ORDER BY product_id LIMIT 1;

SELECT product_id, "values", source FROM enriched.catalog_values ORDER BY product_id;
