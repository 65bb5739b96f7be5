"""What several tests share: small models, toy studies, paths."""
