"""The review page: a small web server on which people judge samples, answer suggestions and look at one product."""
