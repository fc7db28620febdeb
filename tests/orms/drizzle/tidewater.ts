// The view that tidewater keeps in the file, declared so that drizzle-kit leaves it alone and the app can join it.
import { sqliteView, text } from "drizzle-orm/sqlite-core";

export const syncStatus = sqliteView("tidewater_status", {
  table: text("table_name"),
  key: text("pk"),
  status: text("status"),
  changeKey: text("change_key"),
  error: text("error"),
  changedAt: text("changed_at"),
}).existing();
