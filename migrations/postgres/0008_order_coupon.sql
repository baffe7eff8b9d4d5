-- The coupon that took the discount off.
ALTER TABLE orders ADD COLUMN coupon_id uuid;
