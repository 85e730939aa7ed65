-- Who came, and who came again, is kept in stats_visits: the index cost each use a page of its own.
DROP INDEX IF EXISTS stats_uses_v2_by_member;
